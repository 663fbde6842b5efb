"""What the processes between Envoy and the server share: the channel, the metadata of calls, reasons of failures."""
