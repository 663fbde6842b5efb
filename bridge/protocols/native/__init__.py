"""The protocol of Dalston: parameters in the query string, audio in binary frames, JSON in text frames."""
