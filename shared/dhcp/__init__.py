"""The part of the dhcp daemon that its plugin needs: their channel, and the files of the leases."""
