"""The dhcp daemon: leases for the pods of the dhcp plugin, kept as long as each pod lives.

`service` answers the plugins, a `Tenancy` keeps one lease, and its `Client` speaks to the servers, with the state
machine of pyroute2.
"""
