"""The shared vocabulary: commands, events, reject codes and their fixed binary layout.

Every other package may import this one and nothing else of `engine`.

    codes.py    enumerations: command and event kinds, sides, reject reasons (stable numbers)
    layout.py   the binary records as numpy dtypes, with sizes and offsets asserted
    errors.py   the tree of operating errors
"""
