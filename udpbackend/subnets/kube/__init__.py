"""The Kubernetes registry. Only this package imports lightkube: import it only where Kubernetes is the registry."""
