//! Any function of one `i8`: entry `x + 128` of its table is the output for input `x`. It has no parameters.
