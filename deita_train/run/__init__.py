"""Plan, runner, launch and artefacts: how a recipe is carried out, resumed and explained. Imports nothing heavy."""
