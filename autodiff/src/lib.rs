//! Program-based forward- and reverse-mode automatic differentiation.
