"""``aibenchd migrate``: a command line of FAI-PEP's as a configuration of ours.

``arguments`` reads the line, ``answers`` the files that it names or implies, ``sections`` says what each comes to here, and
``writing`` puts that down as YAML.
"""
