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
            "zhou2020adversarial",
            title="Adversarial Ranking Attack and Defense",
            author="Zhou, Mo and Niu, Zhenxing and Wang, Le and Zhang, Qilin and Hua, Gang",
            booktitle="European Conference on Computer Vision",
            year="2020",
        ),
        _entry(
            "inproceedings",
            "zhou2021practical",
            title="Practical Relative Order Attack in Deep Ranking",
            author="Zhou, Mo and Wang, Le and Niu, Zhenxing and Zhang, Qilin and Xu, Yinghui and Zheng, Nanning and "
            "Hua, Gang",
            booktitle="International Conference on Computer Vision",
            year="2021",
        ),
        _entry(
            "inproceedings",
            "zhou2022enhancing",
            title="Enhancing Adversarial Robustness for Deep Metric Learning",
            author="Zhou, Mo and Patel, Vishal M.",
            booktitle="Conference on Computer Vision and Pattern Recognition",
            year="2022",
        ),
        _entry(
            "article",
            "zhou2024adversarial",
            title="Adversarial Attack and Defense in Deep Ranking",
            author="Zhou, Mo and Wang, Le and Niu, Zhenxing and Zhang, Qilin and Zheng, Nanning and Hua, Gang",
            journal="IEEE Transactions on Pattern Analysis and Machine Intelligence",
            year="2024",
        ),
        _entry(
            "inproceedings",
            "tolias2019targeted",
            title="Targeted Mismatch Adversarial Attack: Query with a Flower to Retrieve the Tower",
            author="Tolias, Giorgos and Radenovic, Filip and Chum, Ondrej",
            booktitle="International Conference on Computer Vision",
            year="2019",
        ),
        _entry(
            "inproceedings",
            "wang2020transferable",
            title="Transferable, Controllable, and Inconspicuous Adversarial Attacks on Person Re-identification With "
            "Deep Mis-Ranking",
            author="Wang, Hongjun and Wang, Guangrun and Li, Ya and Zhang, Dongyu and Lin, Liang",
            booktitle="Conference on Computer Vision and Pattern Recognition",
            year="2020",
        ),
        _entry(
            "inproceedings",
            "li2019universal",
            title="Universal Perturbation Attack Against Image Retrieval",
            author="Li, Jie and Ji, Rongrong and Liu, Hong and Hong, Xiaopeng and Gao, Yue and Tian, Qi",
            booktitle="International Conference on Computer Vision",
            year="2019",
        ),
        _entry(
            "article",
            "brown2017patch",
            title="Adversarial Patch",
            author="Brown, Tom B. and Mane, Dandelion and Roy, Aurko and Abadi, Martin and Gilmer, Justin",
            journal="arXiv:1712.09665",
            year="2017",
        ),
        _entry(
            "article",
            "zhang2024hubs",
            title="Adversarial Hubness in Multi-Modal Retrieval",
            author="Zhang, Tingwei and Suya, Fnu and Jha, Rishi and Zhang, Collin and Shmatikov, Vitaly",
            journal="arXiv:2412.14113",
            year="2024",
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
