"""How well does SAM 2 segment medical images, and how should it be prompted?"""
