//! Stacks of layers as directory trees: prepare, commit, view.
