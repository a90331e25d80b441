"""Servers, proxies and stores with faults that several test suites share; nothing here is shipped."""
