"""Words around a numeral that make another number of it, or none: the tables of `number_reading`.

Mostly English; beside it what denies, halves and scales in the languages whose clauses are found. Scale words of other
languages are refused: 5 billones are not 5e9.
"""

from __future__ import annotations

MONTHS = r"(?:(?:Jan|Febr)uary|March|April|May|June|July|August|(?:Sept|Nov|Dec)ember|October)"


def _words(table: str) -> frozenset[str]:
    return frozenset(table.split())


# Numbers in words: beside one in digits there are two.
NUMBER_WORDS = _words("""
    one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds thousand thousands
    million millions billion billions trillion trillions dozen dozens half halves couple score
""")

# A numeral behind one of these, anywhere before it, is a part of something, a bound, or denied.
TAKING = NUMBER_WORDS | _words("""
    root roots squared square cube factorial thirds quarters quarter fourth fifth third twice double triple
    thrice times plus minus multiplied divided subtract subtracted raised divisible sqrt cbrt log ln lg exp sin
    cos tan cot sec csc arcsin arccos arctan max min maximum minimum gcd lcm sum product ratio power powers
    multiple multiples difference reciprocal inverse no not neither nor either cannot never without less more
    fewer greater larger smaller than least most up under below above over exceed exceeds beyond within almost
    nearly between from except until past neg negativ negative opposite wrong incorrect unless if whether
    suppose assume let unlikely impossible nicht kein keine mindestens höchstens mehr weniger über unter fast
    wurzel halb hälfte más menos mayor menor mitad doble raíz casi pas moins inférieure inférieur supérieure
    supérieur moitié racine presque non mai meno più metà radice nem mais maior metade raiz не более менее
    меньше больше почти корень половина
""")

# Directly behind a numeral they relate it to something else;
RELATING = _words("between but by except if over than to unless with without x")

# behind its unit too;
TURNING = _words("below above under or out short less fewer half score")

# these anywhere within the next words;
CHANGING = _words("""
    pi sqrt root roots theta alpha beta gamma phi tau sin cos tan cot csc log ln exp det gcd lcm xy yz xz xyz ab
    bc ac abc pq factorial squared cubed halved doubled tripled choose divided multiplied point least most
    minimum maximum max negative increased reduced decreased third thirds quarter quarters fourth fourths fifth
    fifths sixths sevenths eighths ninths tenth tenths twelfths hundredth hundredths thousandths millionths
    recurring repeating permille ‰ tens ones twos fives kilo twenties gross grand mil mio mrd mln bln mn bn tn
    mille mila tausend milliard milliards milliarde milliarden not millionen billionen millón millones billón
    billones miliardi milioni milhões milhão cien ciento cientos docena docenas dutzend douzaine douzaines lac
    lacs lakhs crores einhalb und oder halb halbe hälfte drittel viertel fünftel zehntel mal medio media tercios
    cuartos cuadrado mayo enero febrero marzo abril junio julio agosto y o et ou demi demie tiers quarts carré
    mai тысяч тысячи тысяча млн млрд миллион миллиона миллионов и или
""")

# and these anywhere.
SPOILING = NUMBER_WORDS - _words("one half couple score") | _words("plus minus wrong incorrect impossible remainder")
