"""Recognition of whole recordings: listening to all of it first, then the segments, then a comparison with the live
transcript."""
