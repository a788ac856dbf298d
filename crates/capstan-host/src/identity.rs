//! Who this kernel is, and which life of it this is (03 A-1… …A-14).
