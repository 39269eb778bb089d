// Calls the Go libcni, the library of containerd, CRI-O and podman, so that the tests can compare with what it does:
//
//	libcni add|check|del|cached CONF-DIR NETWORK CONTAINER-ID NETNS IFNAME
//
// CNI_PATH is where the plugins are, CAP_ARGS a JSON object. Prints the result, or of "cached" the remembered one and
// the remembered configuration's length; exit status 1 with the error on stderr.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 6 {
		return fmt.Errorf("usage: libcni VERB CONF-DIR NETWORK CONTAINER-ID NETNS IFNAME")
	}
	list, err := libcni.LoadConfList(args[1], args[2])
	if err != nil {
		return err
	}
	client := libcni.NewCNIConfig(filepath.SplitList(os.Getenv("CNI_PATH")), nil)
	rt := &libcni.RuntimeConf{
		ContainerID: args[3],
		NetNS:       args[4],
		IfName:      args[5],
		Args:        [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", "web"}},
	}
	if text := os.Getenv("CAP_ARGS"); text != "" {
		if err := json.Unmarshal([]byte(text), &rt.CapabilityArgs); err != nil {
			return err
		}
	}
	switch args[0] {
	case "add":
		result, err := client.AddNetworkList(context.Background(), list, rt)
		if err != nil {
			return err
		}
		return result.Print()
	case "check":
		return client.CheckNetworkList(context.Background(), list, rt)
	case "del":
		return client.DelNetworkList(context.Background(), list, rt)
	case "cached":
		result, err := client.GetNetworkListCachedResult(list, rt)
		if err != nil {
			return err
		}
		config, cached, err := client.GetNetworkListCachedConfig(list, rt)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
			"result": result, "config": string(config), "args": cached.Args, "capabilityArgs": cached.CapabilityArgs,
		})
	}
	return fmt.Errorf("unknown verb %q", args[0])
}
