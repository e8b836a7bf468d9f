"""Each patient's gradient from one backward pass, at nearly the price of the batch's."""
