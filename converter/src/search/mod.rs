//! Chooses formats and ranks under a budget.
