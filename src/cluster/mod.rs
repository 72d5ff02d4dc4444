//! Floor 1: decisions. Pure functions over what machines know of each other.
