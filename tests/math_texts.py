"""A few texts like those of MATH, to train small tokenizers on."""

MATH_TEXTS = (
    "# Question\n\nWhat is the value of $\\frac{3}{4}x + 2$ when $x = 8$?\n\n# Solution\n\n"
    "We substitute $x = 8$ and get $\\frac{3}{4} \\cdot 8 + 2 = 6 + 2$.\n\nSo the value is $\\boxed{8}$.\n\n"
    "# Answer\n\n8",
    "Compute $\\sqrt{144} - \\sqrt{81}$.\n\nThe square root of 144 is 12, and the square root of 81 is 9.",
    "Let $f(x) = x^2 - 4x + 3$. Find the sum of all roots.\n\nBy Vieta's formulas the sum is $4$.",
    "How many ways can 3 red balls be chosen from 7 balls?\n\nThere are $\\binom{7}{3} = 35$ ways.",
    "A triangle has sides 5, 12 and 13.\n\nIts area is $\\frac{1}{2} \\cdot 5 \\cdot 12 = \\boxed{30}$.",
)
