"""Python source that stands, in the interpreter, for names which it does not have, or has otherwise than CPython.

Only what real programs lean on by the thousand: `relativedelta` is in every program about dates, `round` in those about
money, and each would go to the slow tier for it. What is left out raises NotImplementedError, which sends the program
to CPython and the library.
"""

from __future__ import annotations

PROVIDED = {("dateutil.relativedelta", "relativedelta"): "_relativedelta"}
"""(module, name) that a program imports -> name under which `SOURCE` defines it."""

SOURCE = """
import datetime as _datetime
class _relativedelta:
    def __init__(self, dt1=None, dt2=None, years=0, months=0, days=0, weeks=0, hours=0, minutes=0, seconds=0, **other):
        given = (years, months, days, weeks, hours, minutes, seconds)
        if dt1 is not None or dt2 is not None or other or any([type(number) is not int for number in given]):
            raise NotImplementedError("relativedelta of anything but whole years to seconds")
        self._months = 12 * years + months
        self._seconds = 60 * (60 * (24 * (7 * weeks + days) + hours) + minutes) + seconds
    def _shift(self, moment, sign):
        if not isinstance(moment, _datetime.date):
            raise NotImplementedError("relativedelta with anything but a date")
        if self._seconds % 86400 and not isinstance(moment, _datetime.datetime):
            moment = _datetime.datetime(moment.year, moment.month, moment.day)
        year, month = divmod(12 * moment.year + moment.month - 1 + sign * self._months, 12)
        month += 1
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        last = 29 if month == 2 and leap else (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]
        moved = moment.replace(year=year, month=month, day=min(moment.day, last))
        return moved + _datetime.timedelta(seconds=sign * self._seconds)
    def __radd__(self, moment):
        return self._shift(moment, 1)
    def __add__(self, moment):
        return self._shift(moment, 1)
    def __rsub__(self, moment):
        return self._shift(moment, -1)
    def __sub__(self, other):
        raise NotImplementedError("relativedelta minus anything")
    def __mul__(self, other):
        raise NotImplementedError("relativedelta times anything")
    def __rmul__(self, other):
        raise NotImplementedError("relativedelta times anything")
    def __neg__(self):
        raise NotImplementedError("minus relativedelta")
    def __eq__(self, other):
        raise NotImplementedError("relativedelta compared")
    def __str__(self):
        raise NotImplementedError("relativedelta as text")
    def __repr__(self):
        raise NotImplementedError("relativedelta as text")
"""

ROUND = """
def round(number, ndigits=None, *, _round=round, _is=isinstance, _float=float, _int=int):
    if ndigits is None:
        return _round(number)
    if not _is(number, _float):
        return _round(number, ndigits)
    if not _is(ndigits, _int) or ndigits < 0:
        raise NotImplementedError("round of a float to anything but a number of places")
    return _float(f"{number:.{_int(ndigits)}f}") if ndigits <= 323 else number
"""
"""The interpreter multiplies, rounds and divides: 2.675 is 2.68. CPython rounds the exact value, 2.67, as both do where
they format a float. There are no more than 323 places to round to."""
