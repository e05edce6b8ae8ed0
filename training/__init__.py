"""How the shipped miniatures were made, beside the package: no part of what users install.

In come plans (`training/plans`) and seeds; out come weights, logs and curves (`python -m training train`),
and measures of the shipped weights on what training never saw (`python -m training report`). MODEL_CARD.md
tells how it went. Images are simulated only: `label_volumes` draws anatomy, `appearance` makes images of it,
`samples` and `batches` ask for objects in them; `run` trains, with the steps and losses of
`medsam_nb.finetuning`.
"""
