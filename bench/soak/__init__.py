"""The parts of `python -m bench soak`: the exchange, those who use it well or badly, and the judge."""
