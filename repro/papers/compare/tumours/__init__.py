"""All models on the breast tumours of The Cancer Genome Atlas: expression of mRNA and of miRNA."""
