"""Make what the tumours job needs: tables of measurements, the true diagnoses, and a trained model.

::

    build/tumours/
      data/clinic-<n>.csv     285 tumours in three files: a number, and 30 measurements of each
      truth.csv               what each of them was
      model.joblib            a scikit-learn pipeline, trained on the 284 others

The data is scikit-learn's ``load_breast_cancer`` (Wisconsin Diagnostic Breast Cancer, 569 tumours).
"""

from __future__ import annotations

import argparse
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CLINICS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the tables, diagnoses and model of the tumours job.")
    parser.add_argument(
        "--build",
        type=Path,
        default=CHECKOUT / "build" / "tumours",
        metavar="DIR",
        help="the folder to make them in (default: build/tumours of the checkout)",
    )
    prepare(parser.parse_args().build.resolve())


def prepare(build: Path) -> None:
    """Write tables, diagnoses and model below ``build``; in well under a second, so every call makes them anew."""
    import joblib
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    cancer = load_breast_cancer(as_frame=True)
    kinds = cancer.target.map(dict(enumerate(cancer.target_names)))
    train, held_out = train_test_split(cancer.data.index, train_size=0.5, random_state=0, stratify=kinds)

    (build / "data").mkdir(parents=True, exist_ok=True)
    held_out = held_out.sort_values()
    for clinic in range(CLINICS):
        table = cancer.data.loc[held_out[clinic::CLINICS]]
        table.to_csv(build / "data" / f"clinic-{clinic + 1}.csv", index_label="tumour")
    kinds.loc[held_out].rename("kind").to_csv(build / "truth.csv", index_label="tumour")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(cancer.data.loc[train], kinds.loc[train])
    joblib.dump(model, build / "model.joblib")
    print(f"Tumours: {len(held_out)} to classify in {build / 'data'}, a model trained on {len(train)} others")


if __name__ == "__main__":
    main()
