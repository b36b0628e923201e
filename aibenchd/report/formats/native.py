"""Payload format ``native``: the records as they are.

``{"version": 1, "records": [RECORD, …]}``, with what a record holds in :mod:`aibenchd.report.records`. Any 2xx
acknowledges the batch, unless its reply is a JSON object whose ``accepted`` is not the number of records.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from aibenchd import model
from aibenchd.report import base

VERSION = 1


class Native(base.Format):
    """All records, verdicts and samples."""

    def accepts(self, record: model.Record) -> bool:  # noqa: ARG002
        return True

    def body(self, records: Sequence[model.Record], token: str) -> bytes:  # noqa: ARG002
        return f'{{"version":{VERSION},"records":[{",".join(record.text for record in records)}]}}'.encode()

    def answer(self, records: Sequence[model.Record], reply: bytes) -> base.Answer:
        try:
            said = json.loads(reply)
        except (ValueError, RecursionError):
            return base.Answer.DONE
        complete = not isinstance(said, dict) or said.get("accepted", len(records)) == len(records)
        return base.Answer.DONE if complete else base.Answer.AGAIN
