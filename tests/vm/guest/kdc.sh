#!/bin/bash
# kdc.sh N: the Kerberos realm NAS.TEST, with its KDC in the guest and keys for NAS N and for the user nasuser
set -euo pipefail

readonly SERVER=nas$1.nas.test

if [ ! -e /run/kdc ]; then
  mkdir -p /etc/krb5kdc /var/lib/krb5kdc
  cat >/etc/krb5.conf <<'CONF'
[libdefaults]
 default_realm = NAS.TEST
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 rdns = false
[realms]
 NAS.TEST = {
  kdc = 127.0.0.1
 }
[domain_realm]
 .nas.test = NAS.TEST
CONF
  printf '[realms]\n NAS.TEST = {\n  supported_enctypes = aes256-cts:normal\n }\n' >/etc/krb5kdc/kdc.conf
  rm -f /var/lib/krb5kdc/principal*
  kdb5_util create -s -P master >/dev/null
  kadmin.local -q "addprinc -pw nas nasuser" >/dev/null 2>&1
  kadmin.local -q "ktadd -k /run/nasuser.keytab nasuser" >/dev/null
  chown nasuser /run/nasuser.keytab
  krb5kdc
  touch /run/kdc
fi
kadmin.local -q "addprinc -randkey cifs/$SERVER" >/dev/null 2>&1
kadmin.local -q "ktadd -k /run/nas$1/keytab cifs/$SERVER" >/dev/null
grep -q "$SERVER" /etc/hosts || echo "10.99.$1.2 $SERVER" >>/etc/hosts
