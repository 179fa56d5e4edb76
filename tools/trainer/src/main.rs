mod ops;

fn main() {}
