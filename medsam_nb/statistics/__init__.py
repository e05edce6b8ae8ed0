"""From the tidy table to inference: what was found, how certain it is, and of whom it holds. Never sees torch.

`pooling` averages rows to patients, `declarations` says what is compared, `paired` compares; `inference`,
`signs`, `correction` and `findings` hold the statistics; `claims`, `claim_values`, `selection` and
`scoreboard` test the study's claims; `rankings` and `mixed` look at many designs at once; `published` and
`released_scripts` stand for the paper; `retention` and `shown_cases` describe.
"""
