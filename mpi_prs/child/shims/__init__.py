"""The names by which existing scripts import what is ours: azureml and azureml_user."""
