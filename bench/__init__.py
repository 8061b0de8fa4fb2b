"""The benchmark of the delivery engine: our rate and its peers', in one run, on one sink, with mails of one size.

`python -m bench quick` takes about a minute; `python -m bench --help` lists the rest.
"""
