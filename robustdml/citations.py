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
            "dong2018boosting",
            title="Boosting Adversarial Attacks with Momentum",
            author="Dong, Yinpeng and Liao, Fangzhou and Pang, Tianyu and Su, Hang and Zhu, Jun and Hu, Xiaolin and "
            "Li, Jianguo",
            booktitle="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
            year="2018",
        ),
        _entry(
            "inproceedings",
            "croce2020reliable",
            title="Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks",
            author="Croce, Francesco and Hein, Matthias",
            booktitle="International Conference on Machine Learning",
            year="2020",
        ),
        _entry(
            "inproceedings",
            "croce2021mind",
            title="Mind the Box: $l_1$-APGD for Sparse Adversarial Attacks on Image Classifiers",
            author="Croce, Francesco and Hein, Matthias",
            booktitle="International Conference on Machine Learning",
            year="2021",
        ),
        _entry(
            "inproceedings",
            "andriushchenko2020square",
            title="Square Attack: A Query-Efficient Black-Box Adversarial Attack via Random Search",
            author="Andriushchenko, Maksym and Croce, Francesco and Flammarion, Nicolas and Hein, Matthias",
            booktitle="European Conference on Computer Vision",
            year="2020",
        ),
        _entry(
            "inproceedings",
            "ilyas2018black",
            title="Black-box Adversarial Attacks with Limited Queries and Information",
            author="Ilyas, Andrew and Engstrom, Logan and Athalye, Anish and Lin, Jessy",
            booktitle="International Conference on Machine Learning",
            year="2018",
        ),
        _entry(
            "inproceedings",
            "chen2020rays",
            title="RayS: A Ray Searching Method for Hard-label Adversarial Attack",
            author="Chen, Jinghui and Gu, Quanquan",
            booktitle="ACM SIGKDD International Conference on Knowledge Discovery and Data Mining",
            year="2020",
        ),
        _entry(
            "article",
            "papernot2016transferability",
            title="Transferability in Machine Learning: from Phenomena to Black-Box Attacks using Adversarial Samples",
            author="Papernot, Nicolas and McDaniel, Patrick and Goodfellow, Ian",
            journal="arXiv:1605.07277",
            year="2016",
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
        _entry(
            "inproceedings",
            "kurakin2017physical",
            title="Adversarial Examples in the Physical World",
            author="Kurakin, Alexey and Goodfellow, Ian J. and Bengio, Samy",
            booktitle="ICLR Workshop",
            year="2017",
        ),
        _entry(
            "inproceedings",
            "tramer2018ensemble",
            title="Ensemble Adversarial Training: Attacks and Defenses",
            author="Tram{\\`e}r, Florian and Kurakin, Alexey and Papernot, Nicolas and Goodfellow, Ian "
            "and Boneh, Dan and McDaniel, Patrick",
            booktitle="International Conference on Learning Representations",
            year="2018",
        ),
        _entry(
            "article",
            "zimmermann2019comment",
            title='Comment on {"Adv-BNN": Improved Adversarial Defense through Robust Bayesian Neural Network}',
            author="Zimmermann, Roland S.",
            journal="arXiv:1907.00895",
            year="2019",
        ),
        _entry(
            "inproceedings",
            "wong2020fast",
            title="Fast is Better than Free: Revisiting Adversarial Training",
            author="Wong, Eric and Rice, Leslie and Kolter, J. Zico",
            booktitle="International Conference on Learning Representations",
            year="2020",
        ),
        _entry(
            "inproceedings",
            "zhang2019theoretically",
            title="Theoretically Principled Trade-off between Robustness and Accuracy",
            author="Zhang, Hongyang and Yu, Yaodong and Jiao, Jiantao and Xing, Eric and El Ghaoui, Laurent "
            "and Jordan, Michael",
            booktitle="International Conference on Machine Learning",
            year="2019",
        ),
        _entry(
            "inproceedings",
            "croce2020minimally",
            title="Minimally Distorted Adversarial Examples with a Fast Adaptive Boundary Attack",
            author="Croce, Francesco and Hein, Matthias",
            booktitle="International Conference on Machine Learning",
            year="2020",
        ),
        _entry(
            "inproceedings",
            "xie2019improving",
            title="Improving Transferability of Adversarial Examples with Input Diversity",
            author="Xie, Cihang and Zhang, Zhishuai and Zhou, Yuyin and Bai, Song and Wang, Jianyu "
            "and Ren, Zhou and Yuille, Alan L.",
            booktitle="IEEE Conference on Computer Vision and Pattern Recognition",
            year="2019",
        ),
        _entry(
            "inproceedings",
            "dong2019evading",
            title="Evading Defenses to Transferable Adversarial Examples by Translation-Invariant Attacks",
            author="Dong, Yinpeng and Pang, Tianyu and Su, Hang and Zhu, Jun",
            booktitle="IEEE Conference on Computer Vision and Pattern Recognition",
            year="2019",
        ),
        _entry(
            "article",
            "schwinn2021exploring",
            title="Exploring Misclassifications of Robust Neural Networks to Enhance Adversarial Attacks",
            author="Schwinn, Leo and Raab, Ren{\\'e} and Nguyen, An and Zanca, Dario and Eskofier, Bjoern",
            journal="arXiv:2105.10304",
            year="2021",
        ),
        _entry(
            "inproceedings",
            "lin2020nesterov",
            title="Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks",
            author="Lin, Jiadong and Song, Chuanbiao and He, Kun and Wang, Liwei and Hopcroft, John E.",
            booktitle="International Conference on Learning Representations",
            year="2020",
        ),
        _entry(
            "inproceedings",
            "salman2019provably",
            title="Provably Robust Deep Learning via Adversarially Trained Smoothed Classifiers",
            author="Salman, Hadi and Yang, Greg and Li, Jerry and Zhang, Pengchuan and Zhang, Huan "
            "and Razenshteyn, Ilya and Bubeck, S{\\'e}bastien",
            booktitle="Advances in Neural Information Processing Systems",
            year="2019",
        ),
        _entry(
            "inproceedings",
            "wang2021enhancing",
            title="Enhancing the Transferability of Adversarial Attacks through Variance Tuning",
            author="Wang, Xiaosen and He, Kun",
            booktitle="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
            year="2021",
        ),
        _entry(
            "inproceedings",
            "uesato2018adversarial",
            title="Adversarial Risk and the Dangers of Evaluating Against Weak Attacks",
            author="Uesato, Jonathan and O'Donoghue, Brendan and Kohli, Pushmeet and van den Oord, A{\\\"a}ron",
            booktitle="International Conference on Machine Learning",
            year="2018",
        ),
        _entry(
            "inproceedings",
            "papernot2016limitations",
            title="The Limitations of Deep Learning in Adversarial Settings",
            author="Papernot, Nicolas and McDaniel, Patrick and Jha, Somesh and Fredrikson, Matt "
            "and Celik, Z. Berkay and Swami, Ananthram",
            booktitle="IEEE European Symposium on Security and Privacy",
            year="2016",
        ),
        _entry(
            "inproceedings",
            "chen2018ead",
            title="EAD: Elastic-Net Attacks to Deep Neural Networks via Adversarial Examples",
            author="Chen, Pin-Yu and Sharma, Yash and Zhang, Huan and Yi, Jinfeng and Hsieh, Cho-Jui",
            booktitle="AAAI Conference on Artificial Intelligence",
            year="2018",
        ),
        _entry(
            "inproceedings",
            "gao2020patchwise",
            title="Patch-wise Attack for Fooling Deep Neural Network",
            author="Gao, Lianli and Zhang, Qilong and Song, Jingkuan and Liu, Xianglong and Shen, Heng Tao",
            booktitle="European Conference on Computer Vision",
            year="2020",
        ),
        _entry(
            "article",
            "gao2020patchwiseplus",
            title="Patch-wise++ Perturbation for Adversarial Targeted Attacks",
            author="Gao, Lianli and Zhang, Qilong and Song, Jingkuan and Shen, Heng Tao",
            journal="arXiv:2012.15503",
            year="2020",
        ),
        _entry(
            "inproceedings",
            "carlini2017towards",
            title="Towards Evaluating the Robustness of Neural Networks",
            author="Carlini, Nicholas and Wagner, David",
            booktitle="IEEE Symposium on Security and Privacy",
            year="2017",
        ),
        _entry(
            "inproceedings",
            "moosavi2016deepfool",
            title="DeepFool: A Simple and Accurate Method to Fool Deep Neural Networks",
            author="Moosavi-Dezfooli, Seyed-Mohsen and Fawzi, Alhussein and Frossard, Pascal",
            booktitle="IEEE Conference on Computer Vision and Pattern Recognition",
            year="2016",
        ),
        _entry(
            "inproceedings",
            "modas2019sparsefool",
            title="SparseFool: A Few Pixels Make a Big Difference",
            author="Modas, Apostolos and Moosavi-Dezfooli, Seyed-Mohsen and Frossard, Pascal",
            booktitle="IEEE Conference on Computer Vision and Pattern Recognition",
            year="2019",
        ),
        _entry(
            "article",
            "su2019one",
            title="One Pixel Attack for Fooling Deep Neural Networks",
            author="Su, Jiawei and Vargas, Danilo Vasconcellos and Sakurai, Kouichi",
            journal="IEEE Transactions on Evolutionary Computation",
            year="2019",
        ),
        _entry(
            "inproceedings",
            "pomponi2022pixle",
            title="Pixle: A Fast and Effective Black-Box Attack Based on Rearranging Pixels",
            author="Pomponi, Jary and Scardapane, Simone and Uncini, Aurelio",
            booktitle="International Joint Conference on Neural Networks",
            year="2022",
        ),
    ]
)

#: What every evaluation uses: its metrics and its search.
_ALWAYS = ("musgrave2020reality", "douze2024faiss")


def citations(keys: Iterable[str]) -> dict[str, str]:
    """The BibTeX of ``keys`` and of what every evaluation uses; unknown keys (of foreign attacks) are left out."""
    return {key: BIBTEX[key] for key in dict.fromkeys([*keys, *_ALWAYS]) if key in BIBTEX}
