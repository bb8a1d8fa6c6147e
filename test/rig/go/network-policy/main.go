// kube-router's controller of NetworkPolicies, alone: the whole has a BGP server and a cloud's client in it.
package main

import (
	"context"
	"flag"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

func main() {
	file := flag.String("kubeconfig", "", "file of an account that may list Pods, namespaces and NetworkPolicies")
	node := flag.String("node", "", "name of the node whose Pods are guarded: the one in whose network namespace this runs")
	services := flag.String("services", "", "the addresses of Services, as a CIDR block")
	flag.Parse()
	signals, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(signals.Done(), *file, *node, *services); err != nil {
		klog.Fatal(err)
	}
}

func run(stop <-chan struct{}, file, node, services string) error {
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	settings := options.NewKubeRouterConfig()
	settings.HostnameOverride = node
	settings.ClusterIPCIDRs = []string{services}
	settings.EnableIPv4 = true
	// It tries again what failed no sooner than this.
	settings.IPTablesSyncPeriod = 10 * time.Second

	pods := informer(client.CoreV1().RESTClient(), "pods", &core.Pod{})
	namespaces := informer(client.CoreV1().RESTClient(), "namespaces", &core.Namespace{})
	policies := informer(client.NetworkingV1().RESTClient(), "networkpolicies", &networking.NetworkPolicy{})
	iptables, ipsets, err := netpol.NewIPTablesHandlers(settings)
	if err != nil {
		return err
	}
	controller, err := netpol.NewNetworkPolicyController(
		client, settings, pods, policies, namespaces, &sync.Mutex{}, iptables, ipsets)
	if err != nil {
		return err
	}
	watched := []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{pods, controller.PodEventHandler},
		{namespaces, controller.NamespaceEventHandler},
		{policies, controller.NetworkPolicyEventHandler},
	}
	for _, one := range watched {
		if _, err := one.informer.AddEventHandler(one.handler); err != nil {
			return err
		}
		go one.informer.Run(stop)
	}
	// Half of what there is would open what is to be closed.
	if !cache.WaitForCacheSync(stop, pods.HasSynced, namespaces.HasSynced, policies.HasSynced) {
		return nil
	}
	// It waits until somebody takes each of them.
	beats := make(chan *healthcheck.ControllerHeartbeat)
	go func() {
		for range beats {
		}
	}()
	var running sync.WaitGroup
	running.Add(1)
	controller.Run(beats, stop, &running)
	running.Wait()
	return nil
}

// Three are enough: client-go's factory brings those of every kind of object.
func informer(client rest.Interface, resource string, object runtime.Object) cache.SharedIndexInformer {
	list := cache.NewListWatchFromClient(client, resource, core.NamespaceAll, fields.Everything())
	indexers := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	return cache.NewSharedIndexInformer(list, object, 0, indexers)
}
