"""What vnode tells about itself: metrics, health answers, logs. Imports no other room."""
