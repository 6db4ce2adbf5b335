"""
@article{Yang2024,
    author = {Yang, Zhidong and Zang, Dawei and Li, Hongjia and Zhang, Zhao and Zhang, Fa and Han, Renmin},
    title = {Self-supervised noise modeling and sparsity guided electron tomography volumetric image denoising},
    journal = {Ultramicroscopy},
    volume = {255},
    pages = {113860},
    year = {2024},
    doi = {10.1016/j.ultramic.2023.113860},
    url = {https://doi.org/10.1016/j.ultramic.2023.113860}
}

@inproceedings{Yang2021,
    author = {Yang, Zhidong and Zhang, Fa and Han, Renmin},
    title = {Self-supervised cryo-electron tomography volumetric image restoration from single noisy volume with sparsity constraint},
    booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
    pages = {4056--4065},
    year = {2021}
}

@article{Pang2021,
    author = {Pang, Tongyao and Zheng, Huan and Quan, Yuhui and Ji, Hui},
    title = {Recorrupted-to-Recorrupted: Unsupervised deep learning for image denoising},
    journal = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
    pages = {2043--2052},
    year = {2021}
}

@article{VanVeen2024,
    author = {Van Veen, Dave and Galaz-Montoya, Jesus G. and Shen, Liyue and Baldwin, Philip and Chaudhari, Akshay S. and Lyumkis, Dmitry and Schmid, Michael F. and Chiu, Wah and Pauly, John},
    title = {Missing Wedge Completion via Unsupervised Learning with Coordinate Networks},
    journal = {International Journal of Molecular Sciences},
    volume = {25},
    pages = {5473},
    year = {2024},
    doi = {10.3390/ijms25105473}
}

@article{Zeng2024,
    author = {Zeng, Xiangrui and Ding, Yizhe and Zhang, Yueqian and Uddin, Mostofa Rafid and Dabouei, Ali and Xu, Min},
    title = {DUAL: deep unsupervised simultaneous simulation and denoising for cryo-electron tomography},
    journal = {bioRxiv},
    year = {2024},
    doi = {10.1101/2024.03.02.583135}
}
"""  # noqa: E501
