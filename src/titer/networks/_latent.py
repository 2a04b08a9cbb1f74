"""Vectors of words from the notes themselves: latent semantic analysis of the training part."""

from __future__ import annotations

import torch
from torch import Tensor


def latent_vectors(notes: Tensor, words: int, width: int) -> Tensor:
    """Return float32[words, width], what each word says of the topics that notes float32[N, L] of word ids fall into.

    The right singular vectors of the notes' TF-IDF matrix (latent semantic indexing, Deerwester et al. 1990, Journal of
    the American Society for Information Science 41, 391), times IDF, of variance 1 on the whole: the mean over a note's
    words is then near the note's topics from the start. Words of a single note and of none are 0. Labels are not used.
    """
    from sklearn.utils.extmath import randomized_svd

    counts = torch.zeros(len(notes), words).scatter_add_(1, notes.long().cpu(), torch.ones(notes.shape))
    counts[:, 0] = 0.0
    among = (counts > 0).sum(0)
    weight = torch.log((1 + len(notes)) / (1 + among.float()))
    matrix = torch.where(counts > 0, (1 + counts.clamp_min(1).log()) * weight, 0.0)
    rank = min(width, *matrix.shape)
    _, _, topics = randomized_svd(torch.nn.functional.normalize(matrix, dim=1).numpy(), rank, n_iter=3, random_state=0)
    vectors = torch.zeros(words, width)
    vectors[:, :rank] = torch.from_numpy(topics.T.copy()) * weight.unsqueeze(1)
    vectors[among < 2] = 0.0
    spread = vectors[among > 0].std()
    return vectors / spread if bool(spread > 0) else vectors


def of_pieces(vectors: Tensor, table: Tensor, pieces: int) -> Tensor:
    """Return float32[pieces, D], for each piece the mean over the words of `table` int64[V, P] that it stands in.

    Words without a vector, which the notes never held or held once, do not count.
    """
    known = (vectors != 0).any(1)
    total, count = torch.zeros(pieces, vectors.shape[1]), torch.zeros(pieces)
    for place in range(table.shape[1]):
        total.index_add_(0, table[known, place], vectors[known])
        count.index_add_(0, table[known, place], torch.ones(int(known.sum())))
    mean: Tensor = total / count.clamp_min(1).unsqueeze(1)
    mean[0] = 0.0
    return mean
