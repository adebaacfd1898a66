"""Names of single stages, for modules that must not load the stages."""

RECIPE_ASSET = "recipe"
REPORT_STAGE = "report"
