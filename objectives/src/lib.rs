//! Interpolants, training losses and optimisers.
