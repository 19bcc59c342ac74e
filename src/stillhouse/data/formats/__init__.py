"""Files in which data sets are described, as readers of several kinds of target share them."""
