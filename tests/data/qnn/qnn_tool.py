"""A command line tool around Qualcomm's QNN runtime: qnn_tool.py NETWORK.onnx INPUT.npy OUTPUT.npy

Runs a network of one input and one output once on the HTP, without a fallback to the CPU, and prints the runtime's profile
as it is. Its only own row says that no operator ran elsewhere. Exit code: 0 done; 3 the runtime cannot be loaded.
"""

import sys
from pathlib import Path

import numpy as np

PROFILE = Path("profile.csv")


def main(network: str, given: str, output: str) -> int:
    try:
        session = load(network)
    except ImportError as error:
        sys.stderr.write(f"qnn_tool: {error}\n")
        return 3
    found = session.run(None, {session.get_inputs()[0].name: np.load(given)})
    np.save(output, found[0])
    sys.stdout.write(PROFILE.read_text() + "backend dsp\n")
    return 0


def load(network: str):
    import onnxruntime
    import onnxruntime_qnn as qnn

    PROFILE.unlink(missing_ok=True)  # the runtime appends to it
    onnxruntime.register_execution_provider_library(qnn.get_ep_name(), qnn.get_library_path())
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == qnn.get_ep_name()]
    chosen = {"backend_path": qnn.get_qnn_htp_path(), "profiling_level": "detailed", "profiling_file_path": str(PROFILE)}
    options.add_provider_for_devices(devices[:1], chosen)
    return onnxruntime.InferenceSession(network, options)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
