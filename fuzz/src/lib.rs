//! What the fuzz targets do with their bytes. The tests of `capstan-wire` call the same functions.

pub mod wire;
