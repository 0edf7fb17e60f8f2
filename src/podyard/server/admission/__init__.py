"""Admission: what may change or refuse a write after authorization."""
