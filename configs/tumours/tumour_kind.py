"""Is each tumour benign or malignant? A row of measurements in, a row with the kind and how sure the model is out."""

import argparse

import joblib
import pandas as pd


def init():
    """Load the model: once in each process."""
    global model  # noqa: PLW0603

    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="a scikit-learn classifier, saved by joblib")
    model = joblib.load(parser.parse_known_args()[0].model)


def run(mini_batch):
    """Classify the rows of a DataFrame: ``tumour`` names them, the other columns are measurements."""
    measurements = mini_batch.drop(columns="tumour")
    return pd.DataFrame(
        {
            "tumour": mini_batch["tumour"],
            "kind": model.predict(measurements),
            "certainty": model.predict_proba(measurements).max(axis=1),
        }
    )
