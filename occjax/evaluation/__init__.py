"""Average precision of gathered poses."""
