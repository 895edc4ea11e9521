//! Order, lifetimes and arena offsets.
