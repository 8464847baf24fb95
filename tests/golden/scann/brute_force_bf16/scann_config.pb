*
DotProductDistance:*