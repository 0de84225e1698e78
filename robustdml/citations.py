"""BibTeX of what robustdml uses, by citation key, so that a run can cite itself."""

from __future__ import annotations

from collections.abc import Iterable


def _entry(kind: str, key: str, **fields: str) -> tuple[str, str]:
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return key, f"@{kind}{{{key},\n{lines}\n}}"


BIBTEX: dict[str, str] = dict(
    [
        _entry(
            "inproceedings",
            "singh2023mdprop",
            title="Advancing Deep Metric Learning With Adversarial Robustness",
            author="Singh, Inderjeet and Kakizaki, Kazuya and Araki, Toshinori",
            booktitle="Asian Conference on Machine Learning",
            series="PMLR 222",
            pages="1231--1246",
            year="2023",
        ),
        _entry(
            "inproceedings",
            "madry2018towards",
            title="Towards Deep Learning Models Resistant to Adversarial Attacks",
            author="Madry, Aleksander and Makelov, Aleksandar and Schmidt, Ludwig and Tsipras, Dimitris and "
            "Vladu, Adrian",
            booktitle="International Conference on Learning Representations",
            year="2018",
        ),
        _entry(
            "inproceedings",
            "goodfellow2015explaining",
            title="Explaining and Harnessing Adversarial Examples",
            author="Goodfellow, Ian J. and Shlens, Jonathon and Szegedy, Christian",
            booktitle="International Conference on Learning Representations",
            year="2015",
        ),
        _entry(
            "article",
            "carlini2019evaluating",
            title="On Evaluating Adversarial Robustness",
            author="Carlini, Nicholas and Athalye, Anish and Papernot, Nicolas and Brendel, Wieland and Rauber, Jonas "
            "and Tsipras, Dimitris and Goodfellow, Ian and Madry, Aleksander and Kurakin, Alexey",
            journal="arXiv:1902.06705",
            year="2019",
        ),
        _entry(
            "article",
            "kim2020torchattacks",
            title="Torchattacks: A PyTorch Repository for Adversarial Attacks",
            author="Kim, Hoki",
            journal="arXiv:2010.01950",
            year="2020",
        ),
        _entry(
            "article",
            "nicolae2018art",
            title="Adversarial Robustness Toolbox v1.0.0",
            author="Nicolae, Maria-Irina and others",
            journal="arXiv:1807.01069",
            year="2018",
        ),
        _entry(
            "inproceedings",
            "musgrave2020reality",
            title="A Metric Learning Reality Check",
            author="Musgrave, Kevin and Belongie, Serge and Lim, Ser-Nam",
            booktitle="European Conference on Computer Vision",
            year="2020",
        ),
        _entry(
            "article",
            "douze2024faiss",
            title="The Faiss library",
            author="Douze, Matthijs and others",
            journal="arXiv:2401.08281",
            year="2024",
        ),
    ]
)

#: What every evaluation uses: its metrics and its search.
_ALWAYS = ("musgrave2020reality", "douze2024faiss")


def citations(keys: Iterable[str]) -> dict[str, str]:
    """The BibTeX of ``keys`` and of what every evaluation uses; unknown keys (of foreign attacks) are left out."""
    return {key: BIBTEX[key] for key in dict.fromkeys([*keys, *_ALWAYS]) if key in BIBTEX}
