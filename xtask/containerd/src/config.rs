//! What containerd is told: everything in its folder, no registry but this machine, and nothing
//! that needs a privilege which root may lack in a container.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::images;
use crate::place::Place;

/// Nobody serves it, so a pull of an unknown name fails at once and on this machine.
const CLOSED_PORT: u16 = 1;

/// Writes every file of the configuration.
///
/// # Errors
/// When one cannot be written.
pub fn write(place: &Place) -> Result<()> {
    let networks = place.config().join("cni/net.d");
    fs::create_dir_all(&networks)?;
    let snapshotter = snapshotter(place.dir());
    put(
        &place.config().join("config.toml"),
        &main_file(place, snapshotter),
    )?;
    put(&networks.join("10-pods.conflist"), &network(place))?;
    lead(place, "_default", CLOSED_PORT)
}

/// Leads a registry's name to a port of the loopback address. It is read anew at each pull.
///
/// # Errors
/// When the file cannot be written.
pub fn lead(place: &Place, registry: &str, port: u16) -> Result<()> {
    let folder = place.registries().join(registry);
    fs::create_dir_all(&folder)?;
    // containerd 1.6 asks the name itself if there is nothing but `server`.
    let text = format!(
        "server = \"http://127.0.0.1:{port}\"\n\n\
         [host.\"http://127.0.0.1:{port}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    );
    put(&folder.join("hosts.toml"), &text)
}

/// How layers become one file system: `overlayfs`, or copies where that cannot be mounted, as
/// in a folder that lies on an overlay itself.
#[must_use]
pub fn snapshotter(dir: &Path) -> &'static str {
    let probe = dir.join("overlay");
    let mut names = Vec::new();
    for name in ["lower", "upper", "work", "merged"] {
        let path = probe.join(name);
        let _mount_tells = fs::create_dir_all(&path);
        names.push(path);
    }
    let [lower, upper, work, merged] = names.as_slice() else {
        return "native";
    };
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let mounted = mount(
        Some("overlay"),
        merged,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    );
    if mounted.is_ok() {
        let _ours = umount2(merged, MntFlags::MNT_DETACH);
    }
    let _next_start_tries_again = fs::remove_dir_all(probe);
    if mounted.is_ok() {
        "overlayfs"
    } else {
        "native"
    }
}

fn main_file(place: &Place, snapshotter: &str) -> String {
    let dir = place.dir().display();
    let socket = place.socket();
    let socket = socket.display();
    let pause = images::PAUSE;
    format!(
        r#"# Written anew at each start.
version = 2
root = "{dir}/lib"
state = "{dir}/run"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{socket}"

# Or it would be made in /opt.
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/lib/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Root may lack the privilege to lower a score: then no pod would start.
  restrict_oom_score_adj = true
  # Or they would be in /var/run/netns.
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{dir}/rt/usr/lib/cni"
    conf_dir = "{dir}/etc/cni/net.d"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{dir}/rt/usr/sbin/runc"
        # Or it would be below /run.
        Root = "{dir}/run/runc"
        # Machines without systemd have no other driver than cgroupfs.
        SystemdCgroup = false

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{dir}/etc/certs.d"
"#
    )
}

/// A bridge that was made before, with the host's address on it. Neither a gateway nor masked:
/// both would switch forwarding on or write firewall rules for the whole machine. So pods reach
/// each other and the host, and nobody else.
fn network(place: &Place) -> String {
    let conf = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": place.network(),
        "plugins": [{
            "type": "bridge",
            "bridge": place.bridge(),
            "isGateway": false,
            "ipMasq": false,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": place.state().join("cni").display().to_string(),
                "ranges": [[{"subnet": format!("{}.0/24", place.subnet())}]],
            },
        }],
    });
    format!("{conf:#}\n")
}

fn put(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}
