"""Records: what an asset says of itself: what it is made from and with, its partition, its progress, its outcome."""
