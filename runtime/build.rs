//! Tells the crate which Arm profile it is built for (`tucano_profile`): on stable compilers `cfg(target_feature)` does not.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(tucano_profile, values(\"v6m\", \"v7m\", \"v7em\", \"v8m\"))");
    let target = std::env::var("TARGET").unwrap_or_default();
    let profile = match target.split('-').next().unwrap_or_default() {
        "thumbv6m" | "thumbv8m.base" => "v6m",
        "thumbv7m" => "v7m",
        "thumbv7em" => "v7em",
        "thumbv8m.main" => "v8m",
        _ => return,
    };
    println!("cargo::rustc-cfg=tucano_profile=\"{profile}\"");
}
