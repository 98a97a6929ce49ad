"""Expressions and programs on which an interpreter of a Python subset may differ from CPython, made by products.

Their values are CPython's business, so none is written here.
"""

from __future__ import annotations

from itertools import product

_NUMBERS = ["0", "1", "-1", "7", "-7", "10**18", "2**64", "0.1", "-0.5", "2.5", "1e16", "1e300", "True"]
_ROUNDED = """0.5 1.5 2.5 -0.5 -2.5 2.675 1.005 2.345 0.125 0.375 1e16 123456.789 5 15 25 -15 1234567 0.1+0.2
1/3 2/3 1e-10 10**20+5 1e22 99.995 0.045 1.15 1.25 1.35 8.345 1.115 4.35 -0.0 True 5e-324 0.285
1e300"""
_VALUES = ["5", "-5", "0", "1234567", "0.5", "-2.675", "1e10", "1e-5", "True", "'ab'", "1234567.891", "2.5", "1e22"]
_VALUES += ["float('inf')", "float('nan')", "2**70"]
_SPECS = """d 5d 05d +d , _ x X #x b o e .2e f .2f .0f 10.3f <10 ^10 *^10 .3g g G % .1% ,.2f +.1f 08.3f n c s
10s =+10 #.3g"""
_PERCENTS = ["%d", "%5d", "%05d", "%-5d|", "%+d", "%x", "%o", "%e", "%.2f", "%10.3f", "%g", "%s", "%5s", "%.1f%%", "%c"]
_TEXTS = ["''", "'a'", "'Hello World'", "'  x y  '", "'a,b,,c'", "'abcabc'", "'straße'", "'12'", "'a1'", "'İ'", "'½'"]
_METHODS = """upper() lower() title() capitalize() swapcase() casefold() strip() split() split(',') splitlines()
isdigit() isalpha() isalnum() isupper() islower() isspace() isnumeric() isdecimal() istitle()
isidentifier() find('a') rfind('a') count('a') count('') replace('a','b') replace('','-')
startswith('a') endswith(('c','d')) zfill(5) center(7,'*') ljust(7) partition(',') rpartition(',')
join(['1','2']) encode() expandtabs() removeprefix('a') removesuffix('c') index('a') strip('ac')
rsplit(',',1) isascii()"""
_SEQUENCES = ["[1, 2, 3, 4, 5]", "'abcdef'", "(3, 1, 2)", "range(10)", "[]", "{3, 1, 2}", "{'b': 1, 'a': 2}", "{}"]
_SLICES = "[0] [-1] [1:3] [:-1] [::-1] [::2] [5:1:-2] [10:] [-100:100] [::0] [100] [2:2] [None:None] [1.0]"
_OVER = """len({}) sorted({}) sum({}) max({}) min({}) list({}) tuple({}) sorted({},reverse=True)
list(reversed({})) any({}) list(enumerate({},1)) all({}) list(zip({},{})) 3_in_{} bool({})
list(map(str,{})) list(filter(None,{})) str({}) repr({}) next(iter({})) next(iter({}),None)
max({},default=0) {}*2 {}+{} type({}).__name__ sum({},10) max({},key=str) {}=={} [x_for_x_in_{}]
len(set({})) sorted(set({})) list(set({})) next(x_for_x_in_{}) sum(1_for_x_in_{}) map(str,{})[0]
len(zip({},{})) str(map(str,{})) dict.fromkeys({})"""
_MATH = """sqrt exp log log10 log2 sin cos tan asin acos atan sinh cosh tanh floor ceil trunc degrees radians
cbrt gamma erf"""
_BUILTINS = ["abs", "int", "float", "str", "bool", "repr", "bin", "hex", "complex"]
_PLACES = ["None", "0", "1", "2", "3", "-1", "-2", "5", "20", "400"]
_ALONE = r"""
next(x for x in [1, 2, 3] if x > 1)
next((x for x in [1, 2] if x > 5), None)
next((x for x in [1, 2] if x > 5), -1)
next(iter([]))
pow(3, -1, 7)
pow(2, 10, 1000)
pow(2, -1, 4)
pow(2, -1)
pow(10, 3, -7)
divmod(-7.5, 2)
divmod(2**70, 3)
sum([0.1] * 10)
sum([1e16, 1, -1e16])
sorted([(1, 'b'), (0, 'c'), (1, 'a')], key=lambda p: p[0])
sorted([(1, 'b'), (0, 'c'), (1, 'a')], key=lambda p: p[0], reverse=True)
sorted(['b', 'A', 'a', 'B'], key=str.lower)
sorted([1, 'a'])
sorted([3.0, 1, 2.5, True])
list(dict.fromkeys([3, 1, 3, 2]))
{'a': 1, 'b': 2} | {'b': 3}
{1: 'a', 1.0: 'b', True: 'c'}
{'a': 1}['b']
max({'a': 1, 'b': 3}, key={'a': 1, 'b': 3}.get)
{1, 2} | {3}
sorted({1, 2, 3} & {2, 3, 4})
{5, 20, 3}.pop()
list({-1, -2, 0})
str({100, 1, 50})
[x for x in {5, 3, 9, 1}]
{1, 2} <= {1, 2, 3}
[(i, j) for i in range(3) for j in range(i)]
[[i * j for j in range(3)] for i in range(3)]
list(zip([1, 2], 'a', strict=True))
[*range(3), *'ab']
(lambda *a, **k: (a, k))(1, 2, x=3)
1 < 3 < 2
1 == 1.0 == True
'a' + 1
1 + '1'
1 < 'a'
{} < {}
int('12.5')
int(' 1_000 ')
int('0b101', 0)
int('١٢')
int(float('inf'))
float('1,000')
float(10**400)
str(123456789012345680.0)
str(2199993174707039.25)
str(105945 / 131072)
str(0.1 + 0.2)
str(1e-5)
repr('a\'b\n\u200b')
(-8) ** (1/3)
0.0 ** -1
10 ** 400 / 10 ** 399
10 ** 400 * 1.0
2 ** 100 % 97
-(2 ** 100) // 3
9007199254740993 == 9007199254740992.0
10 ** 23 == 1e23
float('nan') == float('nan')
chr(-1)
"they're bill's".title()
', '.join([1, 2])
'%s %s' % ('a',)
'%d' % 'a'
'{0[1]}-{a}'.format([1, 2], a=3)
f'{2.675:.2f}'
f'{3.14159:{5}.2f}'
f'{5 = }'
f'{0.1:.20f}'
[1, 2, 3].index(5)
[].pop()
[1, 2] + (3,)
(y := 5) + y
abs(3 + 4j)
(0.5).as_integer_ratio()
(2.675).__round__(2)
bytes([1, 2])
hash('a') == hash('a')
iter([1])
undefined_name
any(1/x > 0.5 for x in [1, 0])
all(1/x < 0.5 for x in [1, 0])
round('a')
round(2.5, 1.0)
round(1234.5678, -2)
round(number=2.675, ndigits=2)
list(map(round, [2.5, 3.5]))
max([0.1 + 0.2, 0.3])
len(map(int, '12'))
map(int, '12')[0]
"""


def expressions() -> list[str]:
    """Return the expressions of the table, each once."""
    made = [f"({a}) {sign} ({b})" for a, sign, b in product(_NUMBERS, ["+", "-", "*", "/", "//", "%"], _NUMBERS)]
    made += [f"({a}) {sign} ({b})" for a, sign, b in product(_NUMBERS, ["<", "==", ">="], _NUMBERS)]
    made += [f"({a}) ** ({b})" for a, b in product(["1", "-2", "0", "0.5", "-8", "10"], ["0", "-1", "3", "0.5", "100"])]
    made += [f"({a}) {sign} ({b})" for a, sign, b in product(["5", "-5", "2**70"], "&|^", ["0", "-3", "2**65", "True"])]
    made += [f"({a}) {sign} ({b})" for a, sign, b in product(["1", "-1", "2**70"], ["<<", ">>"], ["0", "1", "70"])]
    made += [f"{name}({a})" for name, a in product(_BUILTINS, _NUMBERS)]
    made += [f"round({a}, {n})" for a, n in product(_ROUNDED.split(), _PLACES)]
    made += [f"format({a}, {spec!r})" for a, spec in product(_VALUES, _SPECS.split())]
    made += [f"{spec!r} % ({a},)" for spec, a in product(_PERCENTS, ["5", "-7", "3.7", "2.675", "1e10", "True", "'a'"])]
    made += [f"{text}.{method}" for text, method in product(_TEXTS, _METHODS.split())]
    made += [f"{sequence}{part}" for sequence, part in product(_SEQUENCES[:5], _SLICES.split())]
    made += [over.replace("_", " ").replace("{}", sequence) for over, sequence in product(_OVER.split(), _SEQUENCES)]
    made += [f"__import__('math').{name}({a})" for name, a in product(_MATH.split(), ["0.37", "1", "-2", "7.3", "1e9"])]
    return list(dict.fromkeys([*made, *_ALONE.strip().splitlines()]))


_PROGRAMS = r"""
for i, x in enumerate(a): a.remove(x)
ans = a
===
for x in a: a.remove(x)
ans = a
===
for x in reversed(a): a.remove(x)
ans = a
===
out = []
for x, y in zip(a, a):
    if len(a) < 7: a.append(9)
    out.append(x)
ans = out
===
out = []
for i, x in enumerate(a): out.append(i * x)
ans = out
===
for i, x in enumerate(a): a[i] = x + 1
ans = a
===
g = (x for x in a); ans = [sum(g), sum(g)]
===
m = map(int, '12'); ans = [sum(m), sum(m)]
===
z = zip(a, a); list(z); ans = len(list(z))
===
e = enumerate(a); list(e); ans = len(list(e))
===
f = filter(None, a); list(f); ans = len(list(f))
===
ans = map(int, '1')
===
ans = zip([1], [2])
===
n = 0
def f(x):
    global n
    n += 1
    return x
any(f(x) for x in [1, 1, 1])
ans = n
===
seen = []
def f(x):
    seen.append(x)
    return x
any(f(x) for x in [1, 1, 1])
ans = seen
===
seen = []
any(seen.append(x) or True for x in [1, 2, 3])
ans = seen
===
any((last := x) > 1 for x in [1, 2, 3])
ans = last
===
for v in (x for x in range(10**9) if x > 5):
    ans = v
    break
===
for i, x in enumerate(range(10**9)):
    if x > 5: break
ans = i
===
x, y = map(int, '12'); ans = x + y
===
ans = ', '.join(str(x) for x in a)
===
ans = sum(x * i for i, x in enumerate(a))
===
ans = [x for x, y in zip(a, reversed(a)) if x != y]
===
s = set()
for x in [3, 1, 3]: s.add(x)
ans = len(s)
===
s = {5, 20, 3}
ans = 0
for x in s: ans = 10 * ans + x
===
s = {5, 20, 3}
t = s
ans = list(t)
===
s = {5, 20, 3}; ans = sorted(s)
===
s = {5, 20, 3}; ans = max(s, key=lambda x: 1)
===
def f(): return {5, 20, 3}
ans = list(f())
===
b = [1, 2]; b += (3,); ans = b
===
try: ans = pow(3, -1, 7)
except ValueError: ans = 'none'
===
try: ans = next(x for x in a)
except Exception: ans = 'none'
===
try: ans = 1 // 0
except ZeroDivisionError as error: ans = str(error)
===
try: ans = 1 / 0
except ZeroDivisionError: ans = 5
===
try: ans = {}['a']
except (KeyError, IndexError): ans = 6
===
d = {}; d[1] = 'a'; d[1.0] = 'b'; d[True] = 'c'; ans = str(d)
===
l = []; l.append(l); ans = str(l)
===
ans = str(iter(a))
===
ans = type(x for x in a).__name__
===
ans = __file__
===
return 5
===
ans = 1
if ans: return
===
def f(x, x): return x
ans = f(1, 2)
===
def f():
    x = 1
    global x
    return x
ans = f()
===
nonlocal x
ans = 1
===
ans = 1
break
===
ans = [await x for x in a]
===
class A:
    return 1
ans = 1
===
f = round; ans = f(2.675, 2)
===
round = 3; ans = round
===
from math import cbrt; ans = cbrt(-7)
===
gamma = 0.9; ans = gamma * 2
===
import re
ans = re.sub(r'\d', lambda m: str(int(m.group()) + 1), 'a1b2')
===
import re
ans = str([re.sub('a*', '-', 'baac'), re.findall('x*', 'axb')])
===
from re import findall
ans = str(findall(r'\s', 'a\xa0b\x1c'))
===
import re
ans = 5
===
from datetime import datetime
ans = str(datetime.strptime('10:30 PM', '%I:%M %p').time())
===
class A(dict):
    def __missing__(self, key): return 7
ans = A()['x']
===
class A:
    def __len__(self): return 3
    def __getitem__(self, i): return i * 2
    def __call__(self): return 9
ans = [len(A()), A()[4], A()()]
===
fs = [lambda: i for i in range(3)]; ans = [f() for f in fs]
===
def f(x, kept=[]):
    kept.append(x)
    return kept
f(1); ans = f(2)
===
b = [[0] * 2] * 2; b[0][0] = 1; ans = str(b)
===
x = 0.1
for _ in range(10): x += 0.1
ans = x
===
ans = repr([round(i * 0.005 + 0.0025, 2) for i in range(300)])
===
ans = repr([1.07**i for i in range(60)])
===
from collections import Counter
ans = str(Counter('abcab').most_common())
===
from decimal import Decimal
ans = [str(Decimal(2.675)), str(round(Decimal('2.675'), 2)), Decimal('0.1') == 0.1]
"""


def programs() -> list[str]:
    """Return the programs of the table; `ans` is the result of each."""
    return [f"a = [4, 2, 3]\n{program.strip()}" for program in _PROGRAMS.split("\n===\n")]
